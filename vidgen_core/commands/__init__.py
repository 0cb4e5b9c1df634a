"""The verbs of ``vidgen``, one module each."""
