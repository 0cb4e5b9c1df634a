"""What videos are scored by. A metric is named in ``conf/metric/<name>.yaml``, of the core or of any plugin."""
