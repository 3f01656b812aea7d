"""The part `finetune`: a pretrained model on a file of pairs, ours and the peers'."""
