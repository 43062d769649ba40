// The kernels of float32 arithmetic, each header on its own.
#pragma once
#include "simd.h"
#include "linear.h"
#include "attention.h"
#include "pointwise.h"
#include "experts.h"
#include "layers.h"
#include "layers_vision.h"
