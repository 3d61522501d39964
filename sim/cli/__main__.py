"""`python -m sim.cli` is `burstsim`."""
from sim.cli import main

if __name__ == "__main__":
    main()
