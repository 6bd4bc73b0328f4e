"""The private core: models, tasks and zips in Redis, task ids through RabbitMQ."""
