"""How the shipped models were trained: one runnable module a stage, see README.md for the recorded commands."""
