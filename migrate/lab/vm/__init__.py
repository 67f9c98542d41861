"""The lab's four hosts as machines with kernels of their own, by plain QEMU: see :mod:`migrate.lab.vm.lab`.

Names, addresses and commands are those of the lab of namespaces. The machines are built from Debian's packages
alone, below /var/cache/migrate-lab; QEMU and the network between the machines live in namespaces of the lab's own.
"""
