"""One HTML page about a run, a search or several runs, with everything inside: `write.report`.

- Which page: `single`, `search`, `several`; `policy` plays, films and scores what was learned.
- What it is made of: `figures`, `page`.

Reads what a run has left and computes nothing that `records` computes already. `page` alone imports plotly; only
filming needs torch.
"""
