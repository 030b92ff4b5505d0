"""NFS under judgement: a small client of our own (`client`), and a stock Linux kernel in a virtual machine (`guest`, run by hand)."""
