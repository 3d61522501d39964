"""A scenario at many points."""
