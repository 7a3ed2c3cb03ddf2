"""Hyper-parameter search on Ray Tune; the only part of the lab that knows Ray, imported when a search runs."""
