"""The way of a face that never leaves the GPU: frames and faces in, one small answer out.

`face_path` is the whole of it from aligned faces to the answer; `frame_path` stands before it, from a camera's frame to
aligned faces; `network` says what a network on the device's memory has to do.
"""
