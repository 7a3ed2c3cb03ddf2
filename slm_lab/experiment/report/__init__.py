"""A run, a search or several runs as one HTML page that needs nothing else: `write.write_report`."""
