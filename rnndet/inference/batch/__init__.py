"""Many videos: jobs, shards, records of finished videos."""
