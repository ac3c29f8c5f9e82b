"""The service as a Python package: what `import mixrec_automl` offers. It calls the same use cases as the command line,
and imports heavy things inside its functions as that does."""
