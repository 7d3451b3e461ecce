"""Entry points for `ray job submit` and for the `gblend` command."""
