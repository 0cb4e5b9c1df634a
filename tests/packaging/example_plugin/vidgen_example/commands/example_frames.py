"""vidgen example_frames <video>    How many frames a video has."""

from vidgen_core.errors import BadRequest


def main(arguments):
    if len(arguments) != 1:
        raise BadRequest("Name one video: vidgen example_frames <video>.")
    from vidgen_core.video import VideoReader

    print(len(VideoReader(arguments[0])))
    return 0
