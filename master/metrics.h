/* metrics.h - GET /metrics: how the master is doing, as text that Prometheus reads */
#pragma once

struct front;

void metrics_serve(struct front *);
