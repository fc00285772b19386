"""How gunicorn runs the service, the same on the VM, the dyno and the container.

One process: the model is in memory once, and a forward pass already uses every core. Threads wait for bodies and
for the model meanwhile. No preload: a forked copy of a warmed network has no live compute threads.

Overload. There are more threads than MAX_QUEUE and BATCH_MAX hold pictures; what comes on top is refused with 503,
before its picture is decoded, and most of it before it is given to a thread (see service/worker.py). Connections that
are not even accepted wait in the kernel's backlog.
"""

from __future__ import annotations

import os
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")

bind = f"{os.environ.get('HOST', '0.0.0.0')}:{os.environ.get('PORT', '8080')}"
workers = 1  # set here because gunicorn would else take WEB_CONCURRENCY, which Heroku sets to 2 and more
worker_class = "service.worker.Worker"
threads = int(os.environ.get("WEB_THREADS", "288"))
worker_connections = 800  # open at once, where a process may have 1024 files; more wait to be accepted
backlog = 512  # that may wait so

timeout = 60  # of silence from the worker before it is killed; loading the model on a slow core must fit
graceful_timeout = 8  # for running requests after SIGTERM: Cloud Run kills after 10 s, Heroku after 30 s
keepalive = 100  # longer than the fronts keep theirs (nginx 60 s, Heroku's router 90 s), so that they close first

# The process is reached only through nginx, a router or a load balancer, at addresses that are not known beforehand.
forwarded_allow_ips = "*"

# The worker's heartbeat is a file: on a disk that stalls, a healthy worker would be killed.
worker_tmp_dir = str(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None

control_socket_disable = True  # a management socket in the home folder, which these users do not have
errorlog = "-"
accesslog = None  # every platform's own front writes one
