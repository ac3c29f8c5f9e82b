"""Probabilistic reparameterization for others' loops: an Optuna sampler, a Ray Tune searcher, an Ax strategy."""
