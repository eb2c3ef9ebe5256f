"""Transformers' own tests, run on Citrinet. A package, so that its files may bear the names that Transformers uses."""
