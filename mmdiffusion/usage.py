"""What `mmdiffusion --help` says."""

USAGE = """usage: mmdiffusion {prepare,fit,validate,test,predict,export,report} ...

  mmdiffusion prepare -c CONFIG --cache.folder FOLDER    encodes the data once; also statistics that metrics refer to
  mmdiffusion fit -c CONFIG [-c OVERLAY ...] [--run FOLDER] [--section.key VALUE ...]
  mmdiffusion fit --run FOLDER           goes on with a run that was stopped; so does the command that began it
  mmdiffusion test --run FOLDER          also validate and predict; --ckpt_path takes another checkpoint
  mmdiffusion export --run FOLDER [--to FOLDER]    averaged weights as safetensors, settings and a model card
  mmdiffusion report --run FOLDER [--to FILE]      one HTML page: samples, a film of them, figures, curves, settings
  mmdiffusion fit --help                 every setting
  mmdiffusion fit -c CONFIG --print_config

A run is one folder: config.yaml, checkpoints/, metrics.csv, metrics.json, samples/.
"""
