"""Read ncnn's pairs of files: `.param` text and `.bin` weights.

    param    the text: layers, their blobs and options
    binary   the weights, in the order of the layers
    graph    text and weights together: what each layer computes
    patterns the network whose graph (`families`) is that of a pair
    pair     a pair's files as a state dict, and as a safetensors file

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure. Loads no torch.
"""
