"""An RTSP camera for the tests: plays a folder of JPEGs 00000.jpg, ... in a loop, as H.264 with a key frame every second.

Run by the system's Python, which has GStreamer: /usr/bin/python3 rtsp_server.py PORT FOLDER FPS. Prints `ready` when it answers.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

LAUNCH = (
    'multifilesrc location="{folder}/%05d.jpg" loop=true caps="image/jpeg,framerate={fps}/1" ! jpegdec ! videoconvert '
    "! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={fps} ! rtph264pay name=pay0 pt=96"
)


def main(port, folder, fps):
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {LAUNCH.format(folder=folder, fps=fps)} )")
    factory.set_shared(True)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory("/camera", factory)
    if not server.attach(None):
        sys.exit(f"port {port} cannot be opened")
    print("ready", flush=True)  # noqa: T201
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
