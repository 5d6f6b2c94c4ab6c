"""Map the four source folders onto the namespace package ``shiftwright``."""

from setuptools import find_packages, setup

ROOTS = ("hw", "sw", "sim", "boards")

setup(
    package_dir={f"shiftwright.{root}": root for root in ROOTS},
    packages=[
        name for root in ROOTS
        for name in (f"shiftwright.{root}", *(f"shiftwright.{root}.{sub}" for sub in find_packages(root)))
    ],
)
