"""A scenario several times over, or one long run in batches: how sure its figures are."""
