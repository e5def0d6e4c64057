#!/bin/sh
# One training on several machines: run this on each of them, with the same arguments and another NODE_RANK.
#   NODE_RANK=0 NUM_NODES=2 MASTER=node-0:29500 NUM_PROCESSES=8 scripts/torchrun.sh \
#       -c configs/cdcd/aist.yaml -c configs/overlays/multinode.yaml --trainer.num_nodes 2 --run runs/aist
# NUM_PROCESSES is the number of GPUs of a machine. COMMAND=test measures the run in the same way.
set -eu
# The lonely dashes keep torchrun from taking --run for an abbreviation of one of its own options.
: "${NODE_RANK:?number of this machine, from 0}" "${NUM_NODES:?number of machines}" "${MASTER:?host:port of machine 0}"
exec torchrun --nnodes "$NUM_NODES" --node-rank "$NODE_RANK" --nproc-per-node "${NUM_PROCESSES:-1}" \
    --master-addr "${MASTER%:*}" --master-port "${MASTER##*:}" --no-python -- mmdiffusion "${COMMAND:-fit}" "$@"
