"""Generated from protos/scheduler/v1 by protos/generate.sh; imported by rpc alone."""
