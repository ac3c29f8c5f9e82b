"""Data, model, training and evaluation of MixRec and its baselines. Knows no Ray, MLflow, Ax or database."""
