"""The canary of a new image: a share of the requests, judged by metrics, promoted or rolled back step by step."""
