"""A compiler for recorded graphs of small tensors: ATen operations to C++ with fixed sizes, built in a second or two.

A small net spends most of its time between operations, and what a library call costs beside its arithmetic. Here every
size is a constant, neighbouring elementwise operations share one loop, and products are register tiles of fixed width:

`record` writes down the operations of a function; `lower` turns them into a few kinds of steps; `fuse` puts steps
together; `emit` writes C++; `build` compiles, caches and loads it. What it does not know it refuses with
`Unsupported`, and the caller takes another way.
"""
