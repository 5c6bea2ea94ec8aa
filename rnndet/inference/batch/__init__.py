"""Run many videos: jobs, shards, records of finished videos."""
