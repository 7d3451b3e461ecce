"""An S3 server for tests: `python -m tests.s3_server SOCKET` serves moto on a listening socket that it inherits.

The socket is the parent's, so its address is known, and can be put into the environment of a Ray cluster, before the
server runs. Every request is one line on stderr.
"""

import socket
import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as listening:
        host, port = listening.getsockname()
        app = DomainDispatcherApplication(create_backend_app)
        make_server(host, port, app, threaded=True, request_handler=MotoRequestHandler, fd=descriptor).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
