"""Four hosts in namespaces of this machine, to migrate between: see :mod:`migrate.lab.topology`.

    with Lab("try") as lab:
        pid = lab.hosts["origin"].spawn(["nginx", "-g", "daemon off;"], log="/tmp/nginx.log")
        lab.hosts["peer"].exec(["curl", "-sf", f"http://{lab.service.ipv4}/"])

It needs root, overlayfs and the usual namespaces; it makes nothing in the machine's own.
"""

from migrate.lab.errors import LabError
from migrate.lab.lab import Host, Lab

__all__ = ["Host", "Lab", "LabError"]
