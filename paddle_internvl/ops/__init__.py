"""Operations with several implementations (attention, linear, norms, rope, native layers), and their dispatch."""
