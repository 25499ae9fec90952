"""A made-up BERT: the published one is on a server, and its weights do not matter for tiny inputs."""

import json
from pathlib import Path

from mmengine.config import ConfigDict
from transformers import BertConfig, BertModel

PUBLISHED = 'bert-base-uncased'
SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789.,;:!?-_()/&\'"'


def write_bert(folder: Path) -> Path:
    """A folder that transformers loads as it would the published model, of the same width and one layer."""
    if not (folder / 'config.json').is_file():
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = [*SPECIAL, *LETTERS, *(f'##{letter}' for letter in LETTERS), 'person', 'car']
        (folder / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n')
        settings = {'tokenizer_class': 'BertTokenizer', 'do_lower_case': True, 'model_max_length': 512}
        (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
        config = BertConfig(vocab_size=len(vocabulary), num_hidden_layers=1)
        BertModel(config).save_pretrained(folder)
    return folder


def use_bert(model: ConfigDict, folder: Path) -> None:
    """Put the folder in the place of the published model's name, wherever a config has it."""
    for key, value in model.items():
        if value == PUBLISHED:
            model[key] = str(folder)
        elif isinstance(value, dict):
            use_bert(value, folder)
