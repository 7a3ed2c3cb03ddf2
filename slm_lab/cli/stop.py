"""`slm-lab run --stop-ray`."""

from slm_lab.experiment.search.cluster import stop_ray


def main() -> int:
    """Stop the searches of this user on this machine, and their Ray; say what was stopped."""
    told = stop_ray()
    for line in told:
        print(f"stopped {line}")
    if not told:
        print("no Ray of this user's lab on this machine")
    return 0
