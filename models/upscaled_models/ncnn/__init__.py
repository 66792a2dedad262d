"""Read ncnn's pairs of files (`.param` text, `.bin` weights) of RRDB, compact and SPAN networks.

    param    the text: layers, their blobs and options
    binary   the weights, in the order of the layers
    values   the results of layers
    graph    text and weights together: what each layer computes
    rrdb, compact, span
             which weight each convolution is, by its position in the graph
    pair     a pair's files as a state dict, and as a safetensors file

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure. Loads no torch.
"""
