"""One step of an LSTM, in NumPy."""



def lstm_cell(x, h, c, w_x, w_h, b):
    """The next (h, c).

    Args:
        x: (batch, d) the word that is read.
        h, c: (batch, n) what was shown and what is kept, so far.
        w_x, w_h, b: (4n, d), (4n, n) and (4n,); blocks of n rows in the order input, forget, content, output,
            as in PyTorch: z = x W_xᵀ + h W_hᵀ + b.

    i, f, o = σ(their blocks), g = tanh(its block);  c' = f c + i g;  h' = o tanh(c').
    """
    raise NotImplementedError
