"""The public gateway: HTTPS in, an allow-list of calls on to core. It keeps nothing."""
