"""Health that means it: what is known of one replica, asked over HTTP on its own port."""
