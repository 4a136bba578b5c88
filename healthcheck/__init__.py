"""The health of one replica, proven by real requests and served over HTTP on its own port."""
