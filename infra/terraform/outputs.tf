output "mosaic_store" {
  description = "Value of MOSAIC_STORE."
  value       = "s3://${aws_s3_bucket.store.bucket}${var.prefix == "" ? "" : "/${var.prefix}"}"
}

output "publisher_role_arn" {
  description = "Role of the workers; on EKS the annotation eks.amazonaws.com/role-arn of their account."
  value       = aws_iam_role.publisher.arn
}

output "retention_role_arn" {
  description = "Role of the maintenance, null where nobody may take it."
  value       = one(aws_iam_role.retention[*].arn)
}

output "consumer_policy_arn" {
  description = "Policy for consumers in this account."
  value       = aws_iam_policy.consumer.arn
}

output "topic_arn" {
  description = "Value of events.sns_topic in the profile."
  value       = aws_sns_topic.publications.arn
}
