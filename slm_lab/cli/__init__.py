"""The command line: options, commands, exit codes, and how errors look to a user.

A command's body imports what it needs when it runs, so that `--help` and wrong input never wait for torch. No
training logic here: a command checks its words, calls `experiment` or `remote`, and prints. Any of them
may raise LabError: `app.Group` makes it one message and exit code 2.
"""
