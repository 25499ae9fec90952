"""Where things lie in a COCO or ADE20K folder, how configs name them, and what loads an image."""

from swin_dense import hosts

hosts.prepare()  # the hosts cannot be imported before this
