"""LoRA: the weighted loss trains an adapter of PEFT, which is saved on its own and merged into the model to predict.

The data are sentences from the docstrings of installed Python packages; the task is to find scikit-learn's, 12 of 100.
The model is MiniLM, from the `demo` extra. Nothing is downloaded, but `pip install peft` first.

    python examples/lora.py               # two minutes of one core; the adapter goes to lora/
"""

from pathlib import Path

from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, pipeline

from weighloss import WeightedLossConfig, WeightedLossTrainer
from weighloss.cli.demo_data import demo_data, demo_model

model_name = demo_model()
data = demo_data()
names = data["train"].features["label"].names
tokenizer = AutoTokenizer.from_pretrained(model_name)
data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)

model = get_peft_model(
    AutoModelForSequenceClassification.from_pretrained(model_name),
    LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=16, lora_alpha=32),
)
model.print_trainable_parameters()
trainer = WeightedLossTrainer(
    model=model,
    # An adapter needs a higher learning rate than a whole model.
    args=WeightedLossConfig(
        "lora",
        positive_label="scikit-learn",
        learning_rate=1e-3,
        num_train_epochs=2,
        save_strategy="no",
        per_device_eval_batch_size=64,
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorWithPadding(tokenizer),
    processing_class=tokenizer,
)
trainer.train()
metrics = trainer.evaluate()
print(f"Precision {metrics['eval_precision']:.3f}, recall {metrics['eval_recall']:.3f}, F1 {metrics['eval_f1']:.3f}.")

# An adapter has no config.json: its class weights are in class_weights.json beside it.
trainer.save_model()
size = Path("lora/adapter_model.safetensors").stat().st_size
print(f"The adapter has {size / 1e6:.1f} MB and was trained at w_r = {trainer.class_weights.ratio:.2f}.")

# The adapter has no names of the classes either.
loaded = AutoPeftModelForSequenceClassification.from_pretrained("lora", id2label=dict(enumerate(names)))
classify = pipeline("text-classification", loaded.merge_and_unload(), tokenizer=tokenizer)
for text in (
    "Fit the estimator and predict the clusters of the samples.",
    "Draw a line between two points of the axes.",
):
    answer = classify(text)[0]
    print(f"{answer['label']} ({answer['score']:.2f}): {text}")
