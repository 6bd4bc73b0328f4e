"""The agent: takes tasks from the queue and runs their models' containers, one on each GPU."""
