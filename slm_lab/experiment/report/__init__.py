"""One HTML page about a run, a search or several runs, with everything inside: `write.write_report`.

Reads what a run has left and computes nothing that `compare` or `analysis` computes already. `page` alone imports
plotly; only filming needs torch.
"""
