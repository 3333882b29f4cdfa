"""One run: its folder, fitting, evaluating, predicting, and what is changed afterwards."""
