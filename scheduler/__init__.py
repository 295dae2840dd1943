"""The service: a GPU fair-share scheduler beside kube-scheduler.

A map, outermost first; each module may use those below it:

* ``__main__``  reads the config, wires everything, runs it and shuts it down
* ``extender``  speaks HTTP to kube-scheduler, and is standalone mode's event door
* ``rpc``       speaks gRPC to people's tools (``v1`` is generated for it)
* ``service``   owns time and concurrency: one engine, one loop, two lanes
* ``metrics``   shows decisions as Prometheus series
* ``codec``     knows Kubernetes' JSON; ``config`` knows the settings file
* ``quantity``  knows how people write amounts and durations
* ``core``      decides, and knows none of the above
"""
