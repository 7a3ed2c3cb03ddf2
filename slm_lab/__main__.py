"""`python -m slm_lab` is `slm-lab`."""

from slm_lab.cli.app import main

if __name__ == "__main__":
    main()
