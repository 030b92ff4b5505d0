"""Public POSIX suites, run on a mount: pjdfstest, and fsx and fsstress of xfstests.

The suites are not part of this repository: a judge takes the directory of a built one. `docs` of each suite say how it is built; in short
`autoreconf -ifs && ./configure && make pjdfstest`, and `make` in xfstests.
"""
