"""Source video to Arrow shards."""
